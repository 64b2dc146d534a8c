# gMLP without the split: all channels gate themselves. As many weights.
# python tools/train.py configs/evidence/gmlp-d4-w64-multiply_cifar10.py
# Result: docs/evidence.md.
_base_ = './gmlp-d4-w64_cifar10.py'
model = dict(backbone=dict(arch=dict(mlp_ratio=4.5), gate_form='multiply'))
