# ResNet-20 with double soft orthogonality.
# python tools/train.py configs/evidence/resnet20-double-soft_cifar10.py
# Result: docs/evidence.md.
_base_ = './resnet20_cifar10.py'
custom_hooks = [
    dict(
        type='OrthogonalityHook',
        regularizer=dict(type='DoubleSoftOrthogonality'),
        layers='backbone.layer.*conv[12]',
        weight=0.001,
    )
]
