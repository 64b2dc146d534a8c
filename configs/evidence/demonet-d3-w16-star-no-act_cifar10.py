# DemoNet of width 16 with the star, without activation.
# python tools/train.py configs/evidence/demonet-d3-w16-star-no-act_cifar10.py
# Result: docs/evidence.md.
_base_ = './demonet-d3-w16-star_cifar10.py'
model = dict(backbone=dict(act_cfg=None))
