# StepNet-18 on CIFAR-10 at 64x64: the pre-training of detectors.
# python tools/train.py configs/evidence/stepnet18_cifar10-64.py
# Result: docs/evidence.md.
_base_ = './resnet18_cifar10-64.py'
model = dict(backbone=dict(stage_with_step=(True, True, True, True)))
