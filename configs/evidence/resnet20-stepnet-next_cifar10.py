# StepNet whose adaptors see the next state only (Table 4).
# python tools/train.py configs/evidence/resnet20-stepnet-next_cifar10.py
# Result: docs/evidence.md.
_base_ = './resnet20-stepnet_cifar10.py'
model = dict(backbone=dict(step_cfg=dict(inputs='next')))
