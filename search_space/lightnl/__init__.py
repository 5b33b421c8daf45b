"""The LightNL block: the modules (``block``), the mathematics (``products``), what it costs (``macs``).

Nothing is imported here: ``macs`` needs no torch, and is used where none is loaded.
"""
