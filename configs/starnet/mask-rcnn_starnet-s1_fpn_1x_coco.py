# tools/dist_train.sh configs/starnet/mask-rcnn_starnet-s1_fpn_1x_coco.py 8
# Not trained here; published: 33.8 box AP, 31.9 mask AP (LSNet, table 2).
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='StarNet',
        arch='s1',
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/ma-xu/Rewrite-the-Stars/releases/'
            'download/checkpoints_v1/starnet_s1.pth.tar',
        ),
    ),
    neck=dict(in_channels=[24, 48, 96, 192]),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
)
