"""Bad resources that a real Envoy refuses: whether each is put down to its object and field, and holds back nothing else."""
