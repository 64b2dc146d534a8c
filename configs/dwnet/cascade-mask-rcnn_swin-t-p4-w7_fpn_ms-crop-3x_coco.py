# tools/dist_train.sh configs/dwnet/\
# cascade-mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py 8
# Published: 50.4 box AP, 43.7 mask AP (Swin's detection repository). The DWNet
# paper compares with it. Not trained here.
_base_ = './cascade-mask-rcnn_dwnet-tiny_fpn_ms-crop-3x_coco.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdet.SwinTransformer',
        drop_path_rate=0.2,
        convert_weights=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/SwinTransformer/storage/releases/'
            'download/v1.0.0/swin_tiny_patch4_window7_224.pth',
        ),
    ),
)
no_decay = dict(decay_mult=0.0)
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(relative_position_bias_table=no_decay)
    ),
)
