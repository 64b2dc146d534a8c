# ResNet-20 with FcaNet's attention, reduction 4.
# python tools/train.py configs/evidence/resnet20-fca_cifar10.py
# Result: docs/evidence.md.
_base_ = './resnet20_cifar10.py'
model = dict(
    backbone=dict(
        plugins=[
            dict(
                cfg=dict(type='FCAAttention', ratio=4, dct_size=32 // 2**i),
                stages=tuple(i == j for j in range(3)),
                position='after_conv2',
            )
            for i in range(3)
        ]
    )
)
