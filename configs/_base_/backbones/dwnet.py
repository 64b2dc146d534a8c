# DWNet with the authors' ImageNet weights, and the channels of its FPN. All
# entries but `tiny` are differences from the config that a leaf inherits. A
# leaf takes its entry by `_base_.pop('dwnet')`, so that the others are not in
# its config.
dwnet = dict(
    tiny=dict(
        backbone=dict(
            _delete_=True,
            type='DWNet',
            arch='tiny',
            norm_cfg=dict(type='SyncBN'),
            init_cfg=dict(
                type='Pretrained',
                checkpoint='https://github.com/Atten4Vis/DemystifyLocalViT/'
                'releases/download/prerelease/dwnet_tiny_224.pth',
                # The norms of the levels are new.
                allow_missing=['norm'],
            ),
        ),
        neck=dict(in_channels=[96, 192, 384, 768]),
    ),
    base=dict(
        backbone=dict(
            arch='base',
            init_cfg=dict(
                checkpoint='https://github.com/Atten4Vis/DemystifyLocalViT/'
                'releases/download/prerelease/dwnet_base_224.pth',
            ),
        ),
        neck=dict(in_channels=[128, 256, 512, 1024]),
    ),
    tiny_homogeneous=dict(
        backbone=dict(
            dynamic='homogeneous',
            init_cfg=dict(
                checkpoint='https://github.com/Atten4Vis/DemystifyLocalViT/'
                'releases/download/prerelease/dynamic_dwnet_tiny_224.pth',
            ),
        ),
    ),
    base_homogeneous=dict(
        backbone=dict(
            dynamic='homogeneous',
            init_cfg=dict(
                checkpoint='https://github.com/Atten4Vis/DemystifyLocalViT/'
                'releases/download/prerelease/dynamic_dwnet_base_224.pth',
            ),
        ),
    ),
    # The authors released no ImageNet weights of this form.
    inhomogeneous=dict(backbone=dict(dynamic='inhomogeneous', init_cfg=None)),
)
