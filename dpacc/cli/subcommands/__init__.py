"""One file a command of a command, loaded when it is called: `federate_tune`.

Offers a command of the file's last word.
"""
