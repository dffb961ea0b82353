BEGIN TRANSACTION;
CREATE TABLE results (
    problem TEXT NOT NULL, fingerprint TEXT NOT NULL, threads INTEGER NOT NULL, version TEXT NOT NULL,
    workspace_limit INTEGER NOT NULL,
    strategy TEXT NOT NULL, config TEXT NOT NULL, seconds REAL NOT NULL, baseline_seconds REAL NOT NULL,
    error REAL NOT NULL, verified TEXT NOT NULL, created TEXT NOT NULL, candidates TEXT NOT NULL,
    digest TEXT NOT NULL, PRIMARY KEY (problem, fingerprint, threads, version, workspace_limit));
INSERT INTO "results" VALUES('{"batch":1,"in_channels":3,"out_channels":4,"spatial_size":[5,5],"kernel_size":[3,3],"stride":[1,1],"padding":[[0,0],[0,0]],"dilation":[1,1],"groups":1,"output_padding":[0,0],"transposed":false,"padding_mode":"zeros","direction":"forward","layout":"channels_first","dtype":"float32","epilogue":{"steps":[],"negative_slope":0.01,"zero_point":0},"accuracy":"fast"}','0123456789abcdef',2,'0.1.0',-1,'direct','{"pixels": 7, "lanes": 64}',0.00125,0.1,2.0e-07,'gate A','2025-01-02T03:04:05+00:00','[["direct", "pixels=7 lanes=64", 0.00125], ["reference", "-", 7.0]]','d78a47b59e1ea11d382b4976380d1f9942838d480b69fab7b37300f3e177ad77');
INSERT INTO "results" VALUES('{"batch":1,"in_channels":3,"out_channels":4,"spatial_size":[5,5],"kernel_size":[3,3],"stride":[1,1],"padding":[[0,0],[0,0]],"dilation":[1,1],"groups":1,"output_padding":[0,0],"transposed":false,"padding_mode":"zeros","direction":"forward","layout":"channels_first","dtype":"float32","epilogue":{"steps":[],"negative_slope":0.01,"zero_point":0},"accuracy":"fast"}','0123456789abcdef',2,'0.1.0',0,'reference','{}',0.00125,0.1,2.0e-07,'gate A','2025-01-02T03:04:06+00:00','[]','6e556ed05bf9f906be368965f3d170ef07e51eee5459eadafba193938c5e4341');
CREATE TABLE schema (version INTEGER NOT NULL);
INSERT INTO "schema" VALUES(2);
COMMIT;
