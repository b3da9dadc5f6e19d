"""Generated inputs, mostly bad ones, for every door that data from outside comes in by; ``python -m tests.fuzz``.

A door is a module here with

    REFUSALS    exceptions that bad input may raise; any other is a failure
    prepare     optional: (folder) → what all inputs start from, made once a process
    one         (rng, folder, prepared): makes one input from ``rng`` alone, runs it, asserts what must hold if it was accepted
"""
