# ResNet-20 with orthogonal convolutions.
# python tools/train.py configs/evidence/resnet20-ocnn_cifar10.py
# Result: docs/evidence.md.
_base_ = './resnet20_cifar10.py'
custom_hooks = [
    dict(
        type='OrthogonalityHook',
        regularizer=dict(type='OCNN'),
        layers='backbone.layer.*conv[12]',
        weight=0.001,
    )
]
