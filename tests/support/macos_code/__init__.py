"""Runs the published macOS machine code of setproctitle and processtitle where there is no macOS.

`emulator` runs it on an emulated processor, arm64 and x86_64, `loader` inside a real CPython on x86_64
Linux. In both only Apple's functions are simulated. `table` lists which of them each release calls.
"""
