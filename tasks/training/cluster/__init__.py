"""The nodes of one training as pods of a Kubernetes cluster.

A JobSet (jobset.x-k8s.io/v1alpha2) is one object under one name: created once whoever asks, it brings the pods, their
addresses and their end along, and all of it goes when it is deleted. An Indexed Job would need a Service beside it,
and so two creations that a killed launcher may leave half done.
"""
