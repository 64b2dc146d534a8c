# ResNet-20 with BigGAN's off-diagonal orthogonality.
# python tools/train.py configs/evidence/resnet20-off-diagonal_cifar10.py
# Result: docs/evidence.md.
_base_ = './resnet20_cifar10.py'
custom_hooks = [
    dict(
        type='OrthogonalityHook',
        regularizer=dict(type='OffDiagonalOrthogonality'),
        layers='backbone.layer.*conv[12]',
        weight=0.0001,
    )
]
