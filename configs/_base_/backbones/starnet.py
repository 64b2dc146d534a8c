# StarNet with the authors' ImageNet weights, and the channels of its FPN: s2,
# s3 and s4 are differences from s1. A leaf takes its entry by
# `_base_.pop('starnet')`, so that the others are not in its config.
starnet = dict(
    s1=dict(
        backbone=dict(
            _delete_=True,
            type='StarNet',
            arch='s1',
            norm_eval=True,
            init_cfg=dict(
                type='Pretrained',
                checkpoint='https://github.com/ma-xu/Rewrite-the-Stars/'
                'releases/download/checkpoints_v1/starnet_s1.pth.tar',
            ),
        ),
        neck=dict(in_channels=[24, 48, 96, 192]),
    ),
    s2=dict(
        backbone=dict(
            arch='s2',
            init_cfg=dict(
                checkpoint='https://github.com/ma-xu/Rewrite-the-Stars/'
                'releases/download/checkpoints_v1/starnet_s2.pth.tar',
            ),
        ),
        neck=dict(in_channels=[32, 64, 128, 256]),
    ),
    s3=dict(
        backbone=dict(
            arch='s3',
            init_cfg=dict(
                checkpoint='https://github.com/ma-xu/Rewrite-the-Stars/'
                'releases/download/checkpoints_v1/starnet_s3.pth.tar',
            ),
        ),
        neck=dict(in_channels=[32, 64, 128, 256]),
    ),
    s4=dict(
        backbone=dict(
            arch='s4',
            init_cfg=dict(
                checkpoint='https://github.com/ma-xu/Rewrite-the-Stars/'
                'releases/download/checkpoints_v1/starnet_s4.pth.tar',
            ),
        ),
        neck=dict(in_channels=[32, 64, 128, 256]),
    ),
    # For RTMDet, whose neck takes three levels.
    rtmdet_s1=dict(
        data_preprocessor=dict(  # the pixels of StarNet's weights
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            bgr_to_rgb=True,
        ),
        backbone=dict(
            _delete_=True,
            type='StarNet',
            arch='s1',
            out_indices=(1, 2, 3),
            init_cfg=dict(
                type='Pretrained',
                checkpoint='https://github.com/ma-xu/Rewrite-the-Stars/'
                'releases/download/checkpoints_v1/starnet_s1.pth.tar',
            ),
        ),
        neck=dict(in_channels='auto'),
    ),
)
