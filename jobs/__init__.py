"""What runs: DeepSpeed training, distillation and compression on one worker group.
In: a validated JobSpec and a place to run. Out: a published checkpoint and metrics.
The cluster wing calls it on every worker; it knows nothing of carbon, zones or plans.
"""
