# ResNet-29 with StepNet's adaptors, reduction 4.
# python tools/train.py configs/evidence/resnet29-stepnet_cifar10.py
# Result: docs/evidence.md.
_base_ = './resnet29_cifar10.py'
model = dict(
    backbone=dict(stage_with_step=(True, True, True), step_cfg=dict(ratio=4))
)
