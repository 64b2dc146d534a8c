# ResNet-20 with StepNet's adaptors, reduction 4, that start at a step of 1.
# python tools/train.py configs/evidence/resnet20-stepnet_cifar10.py
# Result: docs/evidence.md.
_base_ = './resnet20_cifar10.py'
model = dict(
    backbone=dict(stage_with_step=(True, True, True), step_cfg=dict(ratio=4))
)
