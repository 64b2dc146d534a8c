# DWNet with the inhomogeneous dynamic convolution.
# python tools/train.py configs/evidence/dwnet-d22-w32-inhomogeneous_cifar10.py
# Result: docs/evidence.md.
_base_ = './dwnet-d22-w32_cifar10.py'
model = dict(backbone=dict(dynamic='inhomogeneous'))
