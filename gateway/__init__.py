"""hazard-gateway: from "a batch was received" to "stored, judged, told, shown".

Nothing is imported here: `alarm_rules` and the adapters import `gateway.model`, and a package that
re-exported its runtime would make that a circle.
"""
