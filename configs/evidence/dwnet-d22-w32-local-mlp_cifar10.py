# DWNet with the local MLP in windows of 5x5.
# python tools/train.py configs/evidence/dwnet-d22-w32-local-mlp_cifar10.py
# Result: docs/evidence.md.
_base_ = './dwnet-d22-w32_cifar10.py'
model = dict(backbone=dict(token_mixer='local_mlp'))
