"""What the tests share.

environments    virtual environments, and what is installed and run in them
mac             the simulated Mac: what makes every process of an environment see macOS
processes       starting, watching and ending processes
consumers       real programs that fork and set titles, and what counts as their work
macos_code      setproctitle's and processtitle's macOS wheels, run on Linux
audit_witness   writes down what an interpreter does, by audit events
"""
