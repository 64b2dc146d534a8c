# ResNet-20 on CIFAR-10, the baseline of attention and StepNet.
# python tools/train.py configs/evidence/resnet20_cifar10.py
# Result: docs/evidence.md.
_base_ = '../_base_/recipes/cifar10_sgd.py'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='CifarResNet', depth=20),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64),
)
