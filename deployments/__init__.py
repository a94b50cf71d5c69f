"""How flows come onto a Prefect server: pools, deployments, automations, and a server of one's own (`make up`)."""
