# DemoNet of width 16 with the sum, without activation.
# python tools/train.py configs/evidence/demonet-d3-w16-sum-no-act_cifar10.py
# Result: docs/evidence.md.
_base_ = './demonet-d3-w16-sum_cifar10.py'
model = dict(backbone=dict(act_cfg=None))
