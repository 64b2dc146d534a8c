# tools/dist_train.sh configs/dwnet/\
# mask-rcnn_dwnet-tiny_fpn_1x_coco.py 8
# Not trained. Optimiser of the DWNet authors, schedule of mmdet.
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='DWNet',
        arch='tiny',
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/Atten4Vis/DemystifyLocalViT/'
            'releases/download/prerelease/dwnet_tiny_224.pth',
            allow_missing=['norm'],  # of the levels: new
        ),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'norm': dict(decay_mult=0.0)}),
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
)
