# ResNet-20 with mutual coherence.
# python tools/train.py configs/evidence/resnet20-coherence_cifar10.py
# Result: docs/evidence.md.
_base_ = './resnet20_cifar10.py'
custom_hooks = [
    dict(
        type='OrthogonalityHook',
        regularizer=dict(type='MutualCoherence'),
        layers='backbone.layer.*conv[12]',
        weight=0.001,
    )
]
