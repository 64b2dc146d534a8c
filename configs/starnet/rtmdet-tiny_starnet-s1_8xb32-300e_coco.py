# tools/dist_train.sh configs/starnet/\
# rtmdet-tiny_starnet-s1_8xb32-300e_coco.py 8
# Not trained. With CSPNeXt, mmdet publishes 40.9 AP.
_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
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
)
