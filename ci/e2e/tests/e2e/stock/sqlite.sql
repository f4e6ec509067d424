-- SPDX-License-Identifier: Apache-2.0 OR MIT
.bail on
pragma journal_mode = delete;
create table readings (id integer primary key, sensor text not null, value real, noted text);
begin;
with recursive numbers(n) as (select 1 union all select n + 1 from numbers where n < 20000)
insert into readings select n, 'sensor ' || (n % 97), n * 0.5, hex(zeroblob(n % 50)) from numbers;
commit;
create index by_sensor on readings (sensor, value);
create unique index by_number on readings (id desc);
begin;
delete from readings where id % 2 = 0;
rollback;
begin;
update readings set value = -value where sensor = 'sensor 13';
savepoint inner;
delete from readings;
rollback to inner;
commit;
select count(*), sum(value), max(length(noted)) from readings;
select sensor, count(*), min(value) from readings where sensor in ('sensor 13', 'sensor 14') group by sensor order by sensor;
explain query plan select * from readings where sensor = 'sensor 13' and value < 0;
pragma integrity_check;
-- With a log that is written ahead, whose index is shared memory.
pragma journal_mode = wal;
insert into readings (sensor, value) values ('late', 1), ('late', 2);
pragma wal_checkpoint(truncate);
insert into readings (sensor, value) values ('later', 3);
vacuum;
pragma integrity_check;
