"""The LightNL block: the modules (``block``), the mathematics (``products``), what it costs (``macs``); what is faster
on a CPU without gradients (``cpu``); and kernels for GPUs (``triton_kernels``), with the operators that use them
(``gpu``).

Nothing is imported here: ``macs`` needs no torch, and is used where none is loaded.
"""
