"""How providers are asked: the one door to HTTP, bounded in time and size, patient, cached and shared by processes.
In: a question with its secrets and bounds. Out: an answer's value, or a fault that says what mends it.
Carbon signals come through it.
"""
