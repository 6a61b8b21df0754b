"""Pods that are made on each way into the cluster: what they ask for, and what is to become of them."""

from dataclasses import dataclass, field

ASKS = {"larder.dev/inject": "enabled"}
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
APP = {"name": "app", "image": "registry.example/model:1"}
