# ResNet-32 with StepNet's adaptors, reduction 4.
# python tools/train.py configs/evidence/resnet32-stepnet_cifar10.py
# Result: docs/evidence.md.
_base_ = './resnet32_cifar10.py'
model = dict(
    backbone=dict(stage_with_step=(True, True, True), step_cfg=dict(ratio=4))
)
