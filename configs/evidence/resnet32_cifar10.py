# ResNet-32 on CIFAR-10.
# python tools/train.py configs/evidence/resnet32_cifar10.py
# Result: docs/evidence.md.
_base_ = './resnet20_cifar10.py'
model = dict(backbone=dict(depth=32))
