"""What the router's scripts for clawgress share: from its configuration to policy and settings, and the program.

Nothing here decides what a policy means. The program does, and it is asked.
"""
