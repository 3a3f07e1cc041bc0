"""What a job drew and emitted, and what it would have: figures derived from facts, with no clock and no store.
In: an Account of plain facts. Out: joules and grams by segment, worker and phase, and savings against run-now.
The report and the metrics show them; facts are stored once, figures are derived anew each time.
"""
