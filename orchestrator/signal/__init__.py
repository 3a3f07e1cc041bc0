"""How clean the grid is: carbon intensities of each zone from providers, files or a generated grid.
In: the zones and providers of the site file. Out: a Forecast for a zone, or a fault that names the remedy.
The planner plans by it; the ledger charges by what was measured.
"""
