"""The machines: Ray segments, worker groups, control and energy meters.
In: segment orders through cluster.api. Out: views of segments and metered rows.
It runs the jobs wing on workers; the orchestrator decides and knows only cluster.api.
"""
