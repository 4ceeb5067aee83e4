"""The local mesh: every part of Windward as a real process on this machine, with a sample application.

    topology.yaml -> plan (network or loopback addresses) -> processes in order -> configuration applied -> proof

It sits on top of everything: it starts services, uses their clients, and sets up the agent's interception.
"""
