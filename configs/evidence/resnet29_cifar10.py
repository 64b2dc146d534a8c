# ResNet-29 on CIFAR-10, with bottlenecks.
# python tools/train.py configs/evidence/resnet29_cifar10.py
# Result: docs/evidence.md.
_base_ = './resnet20_cifar10.py'
model = dict(backbone=dict(depth=29), head=dict(in_channels=256))
