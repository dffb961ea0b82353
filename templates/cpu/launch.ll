; The call path: one CPython builtin (METH_FASTCALL) that checks its arguments and runs a program's stages.
;
; `self` is a bytes object; its content, from byte 32 on, is the table that convgen/runtime/launch.py writes, in words of 64 bits:
;
;   0 arguments   1 stages   2 threads   3 address of the "serial" flag
;   4 numpy.ndarray   5 int   6 None   7 True
;   8 GOMP_parallel   9 omp_get_thread_num   10 omp_get_num_threads
;   then a guard per argument: dtype object (0: the argument is an int), flags that must be set, rank, then the dimensions
;   then a record per stage:   address, tasks, number of sizes, then the sizes
;
; The result is None, with nothing run, when an argument is not what its guard describes, and True after the stages ran.
; PyArrayObject's fields lie where NumPy's ABI has them: data 16, rank 24, dimensions 32, dtype 56, flags 64.

%Job = type { ptr, ptr, ptr, i64, ptr, ptr }  ; stage, buffers, sizes, tasks, omp_get_thread_num, omp_get_num_threads

declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare i64 @PyLong_AsLongLong(ptr)
declare void @PyErr_Clear()
declare void @Py_IncRef(ptr)

; One OpenMP thread's share of a stage: tasks [tasks*t/n, tasks*(t+1)/n).
define internal void @convgen_share(ptr %job) {
  %stage = load ptr, ptr %job
  %buffers.p = getelementptr %Job, ptr %job, i64 0, i32 1
  %buffers = load ptr, ptr %buffers.p
  %sizes.p = getelementptr %Job, ptr %job, i64 0, i32 2
  %sizes = load ptr, ptr %sizes.p
  %tasks.p = getelementptr %Job, ptr %job, i64 0, i32 3
  %tasks = load i64, ptr %tasks.p
  %number.p = getelementptr %Job, ptr %job, i64 0, i32 4
  %number = load ptr, ptr %number.p
  %team.p = getelementptr %Job, ptr %job, i64 0, i32 5
  %team = load ptr, ptr %team.p
  %t32 = call i32 %number()
  %n32 = call i32 %team()
  %t = zext i32 %t32 to i64
  %n = zext i32 %n32 to i64
  %next = add i64 %t, 1
  %low = mul i64 %tasks, %t
  %high = mul i64 %tasks, %next
  %begin = udiv i64 %low, %n
  %end = udiv i64 %high, %n
  call void %stage(ptr %buffers, ptr %sizes, i64 %begin, i64 %end, i64 %t)
  ret void
}

define ptr @convgen_call(ptr %self, ptr %args, i64 %count) {
entry:
  %job = alloca %Job
  %table = getelementptr i8, ptr %self, i64 32
  %expected = load i64, ptr %table
  %none.p = getelementptr i64, ptr %table, i64 6
  %none = load ptr, ptr %none.p
  %guards = getelementptr i64, ptr %table, i64 11
  %counted = icmp eq i64 %count, %expected
  br i1 %counted, label %begin, label %refuse

begin:
  %buffers = alloca i64, i64 %count, align 16
  %ndarray.p = getelementptr i64, ptr %table, i64 4
  %ndarray = load ptr, ptr %ndarray.p
  %int.p = getelementptr i64, ptr %table, i64 5
  %int = load ptr, ptr %int.p
  br label %arguments

arguments:
  %i = phi i64 [ 0, %begin ], [ %i.next, %accept ]
  %guard = phi ptr [ %guards, %begin ], [ %guard.next, %accept ]
  %more = icmp ult i64 %i, %count
  br i1 %more, label %argument, label %accepted

argument:
  %arg.p = getelementptr ptr, ptr %args, i64 %i
  %arg = load ptr, ptr %arg.p
  %type.p = getelementptr i8, ptr %arg, i64 8
  %type = load ptr, ptr %type.p
  %dtype = load ptr, ptr %guard
  %rank.p = getelementptr i64, ptr %guard, i64 2
  %rank = load i64, ptr %rank.p
  %dims = getelementptr i64, ptr %guard, i64 3
  %is.address = icmp eq ptr %dtype, null
  br i1 %is.address, label %address, label %array

address:
  %is.int = icmp eq ptr %type, %int
  br i1 %is.int, label %integer, label %refuse

integer:
  %value = call i64 @PyLong_AsLongLong(ptr %arg)
  %failed = icmp eq i64 %value, -1
  br i1 %failed, label %overflow, label %accept

overflow:
  call void @PyErr_Clear()
  br label %refuse

array:
  %is.array = icmp eq ptr %type, %ndarray
  br i1 %is.array, label %fields, label %refuse

fields:
  %arg.rank.p = getelementptr i8, ptr %arg, i64 24
  %arg.rank32 = load i32, ptr %arg.rank.p
  %arg.rank = sext i32 %arg.rank32 to i64
  %arg.dtype.p = getelementptr i8, ptr %arg, i64 56
  %arg.dtype = load ptr, ptr %arg.dtype.p
  %arg.flags.p = getelementptr i8, ptr %arg, i64 64
  %arg.flags32 = load i32, ptr %arg.flags.p
  %arg.flags = zext i32 %arg.flags32 to i64
  %flags.p = getelementptr i64, ptr %guard, i64 1
  %flags = load i64, ptr %flags.p
  %set = and i64 %arg.flags, %flags
  %same.flags = icmp eq i64 %set, %flags
  %same.dtype = icmp eq ptr %arg.dtype, %dtype
  %same.rank = icmp eq i64 %arg.rank, %rank
  %same.some = and i1 %same.flags, %same.dtype
  %same = and i1 %same.some, %same.rank
  br i1 %same, label %shape, label %refuse

shape:
  %arg.dims.p = getelementptr i8, ptr %arg, i64 32
  %arg.dims = load ptr, ptr %arg.dims.p
  %arg.data.p = getelementptr i8, ptr %arg, i64 16
  %arg.data = load i64, ptr %arg.data.p
  br label %dimensions

dimensions:
  %d = phi i64 [ 0, %shape ], [ %d.next, %dimension ]
  %d.more = icmp ult i64 %d, %rank
  br i1 %d.more, label %dimension, label %accept

dimension:
  %dim.p = getelementptr i64, ptr %dims, i64 %d
  %dim = load i64, ptr %dim.p
  %arg.dim.p = getelementptr i64, ptr %arg.dims, i64 %d
  %arg.dim = load i64, ptr %arg.dim.p
  %d.next = add i64 %d, 1
  %same.dim = icmp eq i64 %dim, %arg.dim
  br i1 %same.dim, label %dimensions, label %refuse

accept:
  %buffer = phi i64 [ %value, %integer ], [ %arg.data, %dimensions ]
  %buffer.p = getelementptr i64, ptr %buffers, i64 %i
  store i64 %buffer, ptr %buffer.p
  %i.next = add i64 %i, 1
  %guard.next = getelementptr i64, ptr %dims, i64 %rank
  br label %arguments

refuse:
  call void @Py_IncRef(ptr %none)
  ret ptr %none

accepted:
  %stages.p = getelementptr i64, ptr %table, i64 1
  %stages = load i64, ptr %stages.p
  %threads.p = getelementptr i64, ptr %table, i64 2
  %threads = load i64, ptr %threads.p
  %serial.pp = getelementptr i64, ptr %table, i64 3
  %serial.p = load ptr, ptr %serial.pp
  %serial = load i64, ptr %serial.p
  %forked = icmp ne i64 %serial, 0
  %limit = select i1 %forked, i64 1, i64 %threads
  %gomp.p = getelementptr i64, ptr %table, i64 8
  %gomp = load ptr, ptr %gomp.p
  %number.p = getelementptr i64, ptr %table, i64 9
  %number = load ptr, ptr %number.p
  %team.p = getelementptr i64, ptr %table, i64 10
  %team = load ptr, ptr %team.p
  %job.buffers = getelementptr %Job, ptr %job, i64 0, i32 1
  store ptr %buffers, ptr %job.buffers
  %job.sizes = getelementptr %Job, ptr %job, i64 0, i32 2
  %job.tasks = getelementptr %Job, ptr %job, i64 0, i32 3
  %job.number = getelementptr %Job, ptr %job, i64 0, i32 4
  store ptr %number, ptr %job.number
  %job.team = getelementptr %Job, ptr %job, i64 0, i32 5
  store ptr %team, ptr %job.team
  %state = call ptr @PyEval_SaveThread()
  br label %run

run:
  %s = phi i64 [ 0, %accepted ], [ %s.next, %ran ]
  %record = phi ptr [ %guard, %accepted ], [ %record.next, %ran ]
  %s.more = icmp ult i64 %s, %stages
  br i1 %s.more, label %stage.begin, label %finish

stage.begin:
  %stage = load ptr, ptr %record
  %tasks.p = getelementptr i64, ptr %record, i64 1
  %tasks = load i64, ptr %tasks.p
  %sizes.count.p = getelementptr i64, ptr %record, i64 2
  %sizes.count = load i64, ptr %sizes.count.p
  %sizes = getelementptr i64, ptr %record, i64 3
  %fewer = icmp ult i64 %tasks, %limit
  %width = select i1 %fewer, i64 %tasks, i64 %limit
  %parallel = icmp ugt i64 %width, 1
  br i1 %parallel, label %share, label %alone

alone:
  call void %stage(ptr %buffers, ptr %sizes, i64 0, i64 %tasks, i64 0)
  br label %ran

share:
  store ptr %stage, ptr %job
  store ptr %sizes, ptr %job.sizes
  store i64 %tasks, ptr %job.tasks
  %width32 = trunc i64 %width to i32
  call void %gomp(ptr @convgen_share, ptr %job, i32 %width32, i32 0)
  br label %ran

ran:
  %s.next = add i64 %s, 1
  %record.next = getelementptr i64, ptr %sizes, i64 %sizes.count
  br label %run

finish:
  call void @PyEval_RestoreThread(ptr %state)
  %true.p = getelementptr i64, ptr %table, i64 7
  %true = load ptr, ptr %true.p
  call void @Py_IncRef(ptr %true)
  ret ptr %true
}
