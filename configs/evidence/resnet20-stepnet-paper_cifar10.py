# ResNet-20 with StepNet, whose step starts at one half, as in the paper.
# python tools/train.py configs/evidence/resnet20-stepnet-paper_cifar10.py
# Result: docs/evidence.md.
_base_ = './resnet20-stepnet_cifar10.py'
model = dict(backbone=dict(step_cfg=dict(start='paper')))
