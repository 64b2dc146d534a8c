# DemoNet, depth 12, width 16, patches of 4x4 pixels: the sum of two branches.
# python tools/train.py configs/evidence/demonet-d12-w16-sum_cifar10.py
# Result: docs/evidence.md.
_base_ = './demonet-d3-w16-sum_cifar10.py'
model = dict(backbone=dict(depth=12))
