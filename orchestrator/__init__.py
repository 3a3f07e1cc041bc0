"""When and where: spec, signal, plan, controller, ledger, report; the command line.
In: a YAML spec, a site file and carbon forecasts. Out: orders to the cluster and an audited report.
The arrows run spec -> signal -> plan -> controller -> ledger -> report.
"""
