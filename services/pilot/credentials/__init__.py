"""Certificates of gateways, from a folder: what Pilot serves to gateways of their namespace, and to nobody else."""
