# ResNet-20 with soft orthogonality.
# python tools/train.py configs/evidence/resnet20-soft_cifar10.py
# Result: docs/evidence.md.
_base_ = './resnet20_cifar10.py'
custom_hooks = [
    dict(
        type='OrthogonalityHook',
        regularizer=dict(type='SoftOrthogonality'),
        layers='backbone.layer.*conv[12]',
        weight=0.001,
    )
]
