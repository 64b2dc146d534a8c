# StepNet with another fusion of the two states: sum (Fig. 5).
# python tools/train.py configs/evidence/resnet20-stepnet-sum_cifar10.py
# Result: docs/evidence.md.
_base_ = './resnet20-stepnet_cifar10.py'
model = dict(backbone=dict(step_cfg=dict(fusion='sum')))
