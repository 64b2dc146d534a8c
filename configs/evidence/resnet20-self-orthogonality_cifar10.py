# ResNet-20 with the Self-Orthogonality Module.
# python tools/train.py configs/evidence/resnet20-self-orthogonality_cifar10.py
# Result: docs/evidence.md.
_base_ = './resnet20_cifar10.py'
custom_hooks = [
    dict(
        type='OrthogonalityHook',
        regularizer=dict(type='SelfOrthogonality'),
        layers='backbone.layer.*conv[12]',
        weight=0.1,
    )
]
