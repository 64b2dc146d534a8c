# StepNet whose adaptors see the difference of the states only (Table 4).
# python tools/train.py configs/evidence/resnet20-stepnet-difference_cifar10.py
# Result: docs/evidence.md.
_base_ = './resnet20-stepnet_cifar10.py'
model = dict(backbone=dict(step_cfg=dict(inputs='difference')))
