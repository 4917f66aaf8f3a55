"""Runs the published macOS machine code of setproctitle and processtitle where there is no macOS.

The wheels are fetched from the package index and run unchanged, in two ways:

table, emulator    on an emulated processor, arm64 and x86_64: which of Apple's functions each release calls.
                   Python, CoreFoundation and LaunchServices are imitated; each of their functions succeeds.
native, loader     the x86_64 code inside a real CPython on x86_64 Linux, for the real programs. Python, memory,
                   fork and ps are the real ones. Only Apple's functions are simulated: after a fork, the first
                   call kills the process.

What may be doubted: that Apple's functions behave so (no Mac has run this); code that runs only when they fail;
C++ exceptions; several threads in the emulator. A function that nobody has modelled is an error, never a silent
zero. To show that it would be seen, the same tools run processtitle.prepare(fork_safe_only=False), which calls
Apple's functions and dies. `python tests/support/macos_code/table.py -v setproctitle==1.3.8` names each call.
"""
